"""Follow a SageMaker training or tuning job to its end, with a progress line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import NamedTuple, TextIO

POLL_SECONDS = 10


class JobFailed(Exception):
    """The job ended without a model; the message is SageMaker's reason."""


class JobState(NamedTuple):
    """status: InProgress, Completed, Failed, Stopping or Stopped. detail: what a person wants to know beside it.
    reason: SageMaker's FailureReason, or empty. archive_uri: of the model, once Completed."""

    status: str
    detail: str
    reason: str = ""
    archive_uri: str = ""


def training_state(sagemaker, name: str) -> JobState:
    """State of a training job."""
    job = sagemaker.describe_training_job(TrainingJobName=name)
    detail = job.get("SecondaryStatus", "")
    metrics = " ".join(f"{m['MetricName']}={m['Value']:.4f}" for m in job.get("FinalMetricDataList", ()))
    return JobState(
        job["TrainingJobStatus"],
        f"{detail} {metrics}".strip(),
        job.get("FailureReason", ""),
        job.get("ModelArtifacts", {}).get("S3ModelArtifacts", ""),
    )


def tuning_state(sagemaker, name: str) -> JobState:
    """State of a tuning job; its archive is that of the best training job, its own or of those it learned from."""
    job = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    counts = job.get("TrainingJobStatusCounters", {})
    detail = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()) if count)
    status = job["HyperParameterTuningJobStatus"]
    best = job.get("OverallBestTrainingJob") or job.get("BestTrainingJob", {})
    if objective := best.get("FinalHyperParameterTuningJobObjectiveMetric"):
        detail += f"; best {objective['MetricName']}={objective['Value']:.4f} by {best['TrainingJobName']}"
    archive_uri = ""
    if status == "Completed" and best:
        archive_uri = training_state(sagemaker, best["TrainingJobName"]).archive_uri
    return JobState(status, detail, job.get("FailureReason", ""), archive_uri)


def follow(
    describe: Callable[[], JobState],
    name: str,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Wait for the job's end and return its archive's S3 URI.

    On a terminal one line is kept up to date; elsewhere a line is written when the state changes.
    Raises JobFailed where the job failed, was stopped, or left no model.
    """
    line = ProgressLine(stream or sys.stderr)
    start = clock()
    while True:
        state = describe()
        line.show(f"{name}: {state.status} {state.detail}".rstrip(), clock() - start)
        if state.status not in ("InProgress", "Stopping"):
            break
        sleep(POLL_SECONDS)
    line.end()
    if state.status == "Completed" and state.archive_uri:
        return state.archive_uri
    raise JobFailed(f"{name}: {state.status}: {state.reason or state.detail or 'it left no model'}")


class ProgressLine:
    """One line that is rewritten on a terminal; elsewhere a new line for each new text."""

    def __init__(self, stream: TextIO):
        self.stream, self.terminal, self.text = stream, stream.isatty(), None

    def show(self, text: str, elapsed_seconds: float) -> None:
        minutes, seconds = divmod(int(elapsed_seconds), 60)
        if self.terminal:
            # Return to the line's start, and clear what the last, perhaps longer, text left.
            self.stream.write(f"\r{text} {minutes:d}:{seconds:02d}\x1b[K")
        elif text != self.text:
            self.stream.write(f"{text} {minutes:d}:{seconds:02d}\n")
        self.stream.flush()
        self.text = text

    def end(self) -> None:
        if self.terminal and self.text is not None:
            self.stream.write("\n")
            self.stream.flush()
