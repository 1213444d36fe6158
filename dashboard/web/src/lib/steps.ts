/** The lines of a call's checklist, as they are shown. */

import type { Step, StepState } from '../api/types'

export type Sign = 'ring' | 'clock' | 'tick' | 'cross' | 'dash' | 'late' | 'swap'

/** Each state has a shape of its own: colour only repeats it. */
export const SIGNS: Record<StepState, Sign> = {
  waiting: 'ring',
  due: 'clock',
  done: 'tick',
  missed: 'cross',
  skipped: 'dash',
  too_late: 'late',
  out_of_order: 'swap',
}

/** What is left of a step's time, in whole seconds; `null` when none runs. Not below 0. */
export function secondsLeft(step: Step, ms: number): number | null {
  if (step.state !== 'due' || step.due_ms == null) return null
  return Math.max(0, Math.ceil((step.due_ms - ms) / 1000))
}

/** The word for a step's state. When its time is over, what was said in time may still be on its way. */
export function wordOf(step: Step, left: number | null): StepState | 'checking' {
  if (step.state !== 'due') return step.state
  if (left === null) return 'waiting'
  return left > 0 ? 'due' : 'checking'
}

/** 9 s, 1:05. */
export function timeLeft(left: number): string {
  return left < 60 ? `${left} s` : `${Math.floor(left / 60)}:${String(left % 60).padStart(2, '0')}`
}
