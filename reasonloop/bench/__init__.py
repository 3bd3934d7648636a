"""What a machine can do, and what runs make of it: ceilings, `reasonloop bench`, `reasonloop doctor`."""
