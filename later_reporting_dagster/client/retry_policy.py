"""How often and how long: retries that outlast a full window of the rate limit."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff. The defaults wait 61.5 to 92 seconds in all, a little more than the service's window [D].

    `longest_wait_seconds` is the most that a request waits because the service asks it to; beyond that it gives up.
    """

    attempts: int = 8
    first_wait_seconds: float = 0.5
    longest_backoff_seconds: float = 30.0
    longest_wait_seconds: float = 300.0

    def wait_after(self, attempt: int, *, asked_for: float | None, jitter: float) -> float | None:
        """Seconds to wait after the failed `attempt`, which counts from 1; None to give up.

        Args:
            attempt: the attempt that failed.
            asked_for: seconds that the service asked to wait.
            jitter: 0 to 1; lengthens the wait by up to half, never shortens it.
        """
        if attempt >= self.attempts or (asked_for or 0.0) > self.longest_wait_seconds:
            return None
        # The exponent is bounded so that no policy can overflow a float.
        backoff = min(self.longest_backoff_seconds, self.first_wait_seconds * 2.0 ** min(attempt - 1, 60))
        return max(asked_for or 0.0, backoff * (1 + jitter / 2))

    def unsaid_wait_after(self, attempt: int, *, window_seconds: float) -> float:
        """Seconds to wait after a 429 that does not say how long: a share of the window that doubles up to all of it.

        A window slides, so that a request too many is soon forgotten; only before the last attempt everything has to
        be.

        Args:
            attempt: the attempt that was refused.
            window_seconds: after which the service has forgotten all that it counted.
        """
        return window_seconds / 2.0 ** min(max(self.attempts - 1 - attempt, 0), 60)
