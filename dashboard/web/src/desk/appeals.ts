/** What an agent writes about alerts. It outlives the look back at a call, which a new call may close. */

import { reactive } from 'vue'

/** By alert; only what is not sent yet. */
const written = reactive(new Map<string, string>())

export function appealOf(alertId: string): string {
  return written.get(alertId) ?? ''
}

export function writeAppeal(alertId: string, text: string): void {
  if (text === '') written.delete(alertId)
  else written.set(alertId, text)
}

/** It holds words, not only blanks. */
export function isBegun(alertId: string): boolean {
  return appealOf(alertId).trim() !== ''
}

/** Somebody else sits at this desk. */
export function forgetAppeals(): void {
  written.clear()
}
