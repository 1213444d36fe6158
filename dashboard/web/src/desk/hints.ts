/**
 * Which hint the agent sees. Pure; times are the page's clock in milliseconds, and are passed in.
 *
 * One hint is shown at a time, the most urgent first, of equally urgent ones the newest. A hint that comes
 * while another is shown waits, so that nothing moves under a cursor or between two keys. What is shown gives
 * way only to what waits, and never while it is held (the pointer is on it, or the focus in it): to something
 * more urgent once it could be read (`READ_MS`), to anything after `SHOWN_MS`.
 *
 * At most `MOST_WAITING` wait; of more, the least urgent and oldest goes. A hint that has waited for
 * `STALE_MS` would only confuse and goes too, and of two from one rule the older. What goes is not lost: it
 * stands in the list of earlier ones, of which the last `MOST_EARLIER` are kept.
 */

import type { Hint, Severity, Worth } from '../api/types'

export const MOST_WAITING = 5
export const MOST_EARLIER = 20
export const READ_MS = 8_000
export const SHOWN_MS = 60_000
export const STALE_MS = 60_000
/** After a change the first moment takes no answer: the key or the click was meant for the hint before. */
export const SETTLE_MS = 350

export interface Waiting {
  hint: Hint
  /** When it came. */
  at: number
}

export interface Earlier {
  hint: Hint
  /** `null`: nobody answered it. */
  answer: Worth | null
}

export interface Queue {
  shown: Hint | null
  /** Since when it is shown. */
  since: number
  /** In the order in which they will be shown. */
  waiting: readonly Waiting[]
  /** Newest first. */
  earlier: readonly Earlier[]
}

export const EMPTY: Queue = { shown: null, since: 0, waiting: [], earlier: [] }

const URGENCY: Record<Severity, number> = { critical: 2, warning: 1, info: 0 }

export function urgency(hint: Hint): number {
  return URGENCY[hint.severity ?? 'info']
}

/** A hint comes. One that is known already changes nothing. */
export function offer(queue: Queue, hint: Hint, now: number): Queue {
  if (knows(queue, hint.id)) return queue
  const before = queue.waiting.filter((each) => each.hint.rule_id === hint.rule_id)
  const others = queue.waiting.filter((each) => each.hint.rule_id !== hint.rule_id)
  const all = [...others, { hint, at: now }].sort((a, b) => urgency(b.hint) - urgency(a.hint) || b.at - a.at)
  const dropped = [...before, ...all.slice(MOST_WAITING)].map((each) => each.hint)
  return { ...queue, waiting: all.slice(0, MOST_WAITING), earlier: past(queue.earlier, dropped) }
}

/** Time passes: the same queue if that changes nothing. `held`: somebody is about to answer what is shown. */
export function advance(queue: Queue, now: number, held: boolean): Queue {
  const stale = queue.waiting.filter((each) => now - each.at >= STALE_MS)
  let next = queue
  if (stale.length > 0) {
    const waiting = queue.waiting.filter((each) => now - each.at < STALE_MS)
    next = { ...queue, waiting, earlier: past(queue.earlier, stale.map((each) => each.hint)) }
  }
  const [first, ...rest] = next.waiting
  if (!first) return next
  if (next.shown !== null) {
    const shownFor = now - next.since
    const more = urgency(first.hint) > urgency(next.shown)
    if (held || shownFor < (more ? READ_MS : SHOWN_MS)) return next
    next = { ...next, earlier: past(next.earlier, [next.shown]) }
  }
  return { ...next, shown: first.hint, since: now, waiting: rest }
}

/** It was answered, here or at another desk of the same agent. */
export function answered(queue: Queue, hintId: string, answer: Worth): Queue {
  if (queue.shown?.id === hintId) {
    return { ...queue, shown: null, earlier: keep([{ hint: queue.shown, answer }, ...queue.earlier]) }
  }
  const waiting = queue.waiting.find((each) => each.hint.id === hintId)
  if (waiting) {
    return {
      ...queue,
      waiting: queue.waiting.filter((each) => each !== waiting),
      earlier: keep([{ hint: waiting.hint, answer }, ...queue.earlier]),
    }
  }
  if (!queue.earlier.some((each) => each.hint.id === hintId && each.answer !== answer)) return queue
  return { ...queue, earlier: queue.earlier.map((each) => (each.hint.id === hintId ? { ...each, answer } : each)) }
}

/** The server did not take the answer: the hint is shown again, unless another is by now. */
export function unanswered(queue: Queue, hint: Hint, now: number): Queue {
  const earlier = queue.earlier.filter((each) => each.hint.id !== hint.id)
  if (queue.shown !== null) return { ...queue, earlier: keep([{ hint, answer: null }, ...earlier]) }
  return { ...queue, shown: hint, since: now, earlier }
}

/** After loading: what is fresh and not answered waits, the rest is past. `mediaMs`: where the call stands. */
export function restored(
  queue: Queue,
  hints: readonly { hint: Hint; answer: Worth | null }[],
  mediaMs: number,
  now: number,
): Queue {
  let next = queue
  for (const { hint, answer } of hints) {
    if (answer !== null && knows(next, hint.id)) next = answered(next, hint.id, answer)
    else if (knows(next, hint.id)) continue
    else if (answer === null && mediaMs - hint.media_ms < STALE_MS) next = offer(next, hint, now - Math.max(0, mediaMs - hint.media_ms))
    else next = { ...next, earlier: keep([{ hint, answer }, ...next.earlier]) }
  }
  return next
}

function knows(queue: Queue, id: string): boolean {
  return (
    queue.shown?.id === id ||
    queue.waiting.some((each) => each.hint.id === id) ||
    queue.earlier.some((each) => each.hint.id === id)
  )
}

function past(earlier: readonly Earlier[], hints: readonly Hint[]): readonly Earlier[] {
  return keep([...hints.map((hint) => ({ hint, answer: null })), ...earlier])
}

function keep(earlier: readonly Earlier[]): readonly Earlier[] {
  return earlier.slice(0, MOST_EARLIER)
}
