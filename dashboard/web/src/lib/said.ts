/** What calls on the wall show of themselves, as shapes and as words for those who do not see them. */

import type { Channel, Mood, Speaking } from '@/api/types'
import { say } from '@/i18n'
import { curve, trendOf } from './curve'

/** Of a side that speaks, and of one that does not; paths in a box of 24 by 24. */
export const WAVE = 'M5 10v4M9 6.500v11M13 9v6M17 5v14M21 10.500v3'
export const STILL = 'M1 12h22'

export function speakingOf(speaking: Speaking, channels?: readonly Channel[]): { sides: readonly Channel[]; said: string } {
  const sides: Channel[] = channels?.length === 1 && channels[0] === 'unknown' ? ['unknown'] : ['agent', 'customer']
  const who = sides.filter((side) => speaking[side]).map((side) => say(`speaking.${side}`))
  return { sides, said: who.length > 0 ? who.join(' · ') : say('speaking.silent') }
}

/** The curve, with two pixels of room on each side. */
export function moodPath(moods: readonly Mood[], width: number, height: number): string {
  const points = moods.map((mood) => ({ at: mood.media_ms, level: mood.level }))
  return curve(points, width - 4, height - 4)
}

export function moodSaid(mood: Mood): string {
  return say('wall.mood', {
    feeling: say(`feeling.${mood.feeling}`),
    level: mood.level.toFixed(1),
    trend: say(`trend.${trendOf(mood.trend)}`),
  })
}
