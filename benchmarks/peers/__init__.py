"""One module a framework: the same work as scratchvae's, written as a good user of that framework would write it."""
