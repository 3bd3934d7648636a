"""Our own kernels for CPUs (kernels.c): built at first use, and the operations and products that use them."""
