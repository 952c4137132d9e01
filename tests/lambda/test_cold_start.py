"""A budget for the cold start, as a ratio in one run: a busy machine slows both sides."""

from statistics import median

from bench import lambda_start

ROUNDS = 9  # one alone may be a fifth off


def times_the_plain_client(work: str) -> float:
    """The processors' time of `work` over that of boto3's plainest client: the median of neighbours in time."""
    plain, own = lambda_start.in_turn(ROUNDS, lambda_start.PLAIN, work)
    return median(ours.cpu / theirs.cpu for ours, theirs in zip(own, plain, strict=True))


def test_the_handler_starts_no_slower_than_a_plain_client_of_boto3():
    """Structured logs, metrics, the fetch guard and the client included."""
    assert times_the_plain_client(lambda_start.HANDLER) <= 1.0


def test_the_budget_would_notice_a_boto3_client_in_the_handler():
    assert times_the_plain_client(f"{lambda_start.HANDLER}\n{lambda_start.PLAIN}") > 1.0
