"""What holds for every test: one thread a process, for tensors are small and workers share the processors."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, and by the processes that tests start
