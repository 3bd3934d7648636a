"""What this machine can do: `reasonloop bench` and `reasonloop doctor`."""

from reasonloop.machine.threads import wait_briefly

wait_briefly()  # as runs do; OpenMP reads it when torch is imported, which the modules here do
