/** Asking again after a failure: later each time, and not everybody at once. */

import { retryDelay } from '@/feed/socket'

/** Waits before the next attempt; `attempt` counts from 0: about a second, at most fifteen. */
export function pause(attempt: number): Promise<void> {
  return new Promise((wake) => window.setTimeout(wake, retryDelay(attempt + 1, Math.random())))
}
