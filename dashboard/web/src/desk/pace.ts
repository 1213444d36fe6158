/** How fast the agent speaks: characters a minute of speech, without the pauses between utterances. Pure. */

import type { Said, Text } from '../api/types'

export const WITHIN_MS = 30_000
/** Fewer characters say nothing about speed. */
export const ENOUGH = 20
/** Above it customers no longer follow (the built-in rule `dynamics.fast_speech` says the same). */
export const FAST = 300
export const SLOW = 120
/** Right end of the gauge. */
export const MOST = 400
const REMEMBERED = 32

export type Speed = 'slow' | 'usual' | 'fast'

/** As the server counts: letters, ideographs, digits; what was masked counts as nothing. */
export function characters(text: string): number {
  return text.match(/[\p{L}\p{N}]/gu)?.length ?? 0
}

/** An utterance was said. Read anew it replaces what it was. */
export function heard(said: readonly Said[], text: Text): readonly Said[] {
  const others = said.filter((each) => each.utterance_id !== text.utterance_id)
  const count = characters(text.text)
  if (count === 0) return others
  const { utterance_id, start_ms, end_ms } = text
  return [...others, { utterance_id, start_ms, end_ms, characters: count }]
    .sort((a, b) => a.start_ms - b.start_ms)
    .slice(-REMEMBERED)
}

/** Over the last half minute before the last word; `null`: too little was said in it. */
export function pace(said: readonly Said[]): number | null {
  const last = said.reduce((end, each) => Math.max(end, each.end_ms), 0)
  let count = 0
  let ms = 0
  for (const each of said) {
    if (each.end_ms <= last - WITHIN_MS) continue
    count += each.characters
    ms += Math.max(0, each.end_ms - each.start_ms)
  }
  return count < ENOUGH || ms === 0 ? null : Math.round((count * 60_000) / ms)
}

export function speedOf(rate: number): Speed {
  return rate > FAST ? 'fast' : rate < SLOW ? 'slow' : 'usual'
}
