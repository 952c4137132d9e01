"""Several processes at one piece of work: started together, watched, and ended together."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from classifier.mistake import Mistake

# Not forked: a copy of a process whose OpenMP threads have run hangs at its next parallel loop.
CONTEXT = multiprocessing.get_context("spawn")


def run_workers(count: int, work: Callable, arguments: tuple, on_death: Callable[[BaseProcess], None]) -> None:
    """Run work(number, *arguments) in `count` processes, number from 0, until all have ended.

    on_death(process) is called for each that ended with another exit code than 0, while the others go on. When this
    process is interrupted they get KeyboardInterrupt; when it is killed they end at once.
    """
    processes = [
        CONTEXT.Process(target=_begin, args=(work, number, *arguments), name=f"worker {number}", daemon=True)
        for number in range(count)
    ]
    try:
        for process in processes:
            process.start()
        alive = list(processes)
        while alive:
            ended = wait([process.sentinel for process in alive])
            for process in [process for process in alive if process.sentinel in ended]:
                process.join()
                alive.remove(process)
                if process.exitcode:
                    on_death(process)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            if process.pid:
                process.join()


def _begin(work: Callable, number: int, *arguments) -> None:
    # Ctrl-C reaches every process of a terminal; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(number, *arguments)
    except Mistake as mistake:
        print(f"{multiprocessing.current_process().name}: {mistake}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
