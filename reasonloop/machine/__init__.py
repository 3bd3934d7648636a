"""What the machine is: threads, processor, compiler. Free of torch."""
