/** What calls on the wall show of themselves, as shapes and as words for those who do not see them. */

import type { Channel, Mood, Speaking } from '@/api/types'
import { say } from '@/i18n'
import { curve, trendOf } from './curve'

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
