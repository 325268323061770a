"""What a call costs, beside nginx and beside no gateway at all: `./run bench`.

One process is the load (`load`) and reads the meters (`processes`); it starts an upstream (`upstream`), a Redis, nginx
where it is installed, and the gateway from this checkout (`stack`). Sides that are compared take turns, round by round
(`compare`), for a machine is never equally quiet for long. A bench (`cases`) returns an `Outcome`: rows to read, and
figures held against their targets; `report` prints it and writes it down with its date and machine.

Needs Linux: what a process used is read from /proc.
"""
