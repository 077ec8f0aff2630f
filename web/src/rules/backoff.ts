// How long to wait before another attempt: doubling, bounded, and spread so that a host's pages do not come at once.

const FIRST = 600;
const LONGEST = 10_000;

/** Milliseconds before attempt number `attempt` (from 0); `chance` is in [0, 1). Between half and all of the step. */
export function backoff(attempt: number, chance: number): number {
  const step = Math.min(LONGEST, FIRST * 2 ** Math.min(Math.max(attempt, 0), 16));
  return Math.round(step / 2 + (step / 2) * chance);
}
