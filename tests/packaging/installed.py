"""Run by the Python of an environment that has Stepwell and nothing of its repository: does it work there?"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

EXPECTED = sys.argv[1]


def command(*arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("stepwell")), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def log_and_read() -> None:
    import trio

    from stepwell import ExecutionStep, StepSuccess, open_memory

    async def main() -> None:
        async with open_memory("memory") as memory, memory.episode("a task", episode_id="e") as episode:
            await (await episode.log_step(ExecutionStep("tool", "act", result=StepSuccess("ok")))).wait_durable()
            episode.succeed("done")
        async with open_memory("memory", read_only=True) as memory:
            assert len((await memory.get_episode("e")).steps) == 1

    trio.run(main)


def the_doors() -> None:
    import asyncio

    import stepwell.aio
    import stepwell.sync

    async def main() -> None:
        async with stepwell.aio.open_memory("aio") as memory:
            await memory.start_episode("a task")

    asyncio.run(main())
    with stepwell.sync.open_memory("sync") as memory:
        memory.start_episode("a task")


def extras() -> None:
    import trio

    from stepwell import LocalKeyProvider, MemoryConfig, StepwellError, open_memory

    async def with_config(config: MemoryConfig, where: str) -> None:
        async with open_memory(where, config=config) as memory:
            await memory.start_episode("a task " * 100)

    makers: tuple[tuple[str, Callable[[], MemoryConfig]], ...] = (
        ("zstd", lambda: MemoryConfig(compression="zstd")),
        ("encryption", lambda: MemoryConfig(key_provider=LocalKeyProvider(b"k" * 32))),
    )
    for extra, make in makers:
        try:
            trio.run(with_config, make(), f"with-{extra}")
            assert EXPECTED == "all", f"{extra} works without its extra"
        except (StepwellError, ImportError) as error:
            assert EXPECTED == "none", error
            assert f"stepwell[{extra}]" in str(error), error
    told = command("export", "steps.parquet", "--dir", "memory", code=0 if EXPECTED == "all" else 1)
    assert EXPECTED == "all" or "stepwell[parquet]" in told, told
    try:
        from stepwell.tracing import traced

        traced(None)  # type: ignore[type-var]
        assert EXPECTED == "all"
    except ImportError as error:
        assert EXPECTED == "none"
        assert "stepwell[otel]" in str(error)


def import_milliseconds() -> float:
    program = "import time; began = time.perf_counter(); import stepwell; print(time.perf_counter() - began)"
    runs = [
        float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    return statistics.median(runs) * 1000


def main() -> None:
    log_and_read()
    the_doors()
    assert command("--version").startswith("stepwell, version ")
    assert "a task" in command("show", "e", "--dir", "memory")
    assert command("verify", "--dir", "memory").startswith("sound")
    extras()
    print(f"import stepwell in {import_milliseconds():.0f} ms (median of 5)")


if __name__ == "__main__":
    main()
