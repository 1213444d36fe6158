/** Small curves of how somebody feels, as an SVG path. */

/** From 0 (calm) to this. */
export const HIGHEST = 10

export interface Point {
  at: number
  level: number
}

/** `M0,12 L…`: the first point left, the last one right, `HIGHEST` on top; empty with less than two points. */
export function curve(points: readonly Point[], width: number, height: number): string {
  const first = points[0]
  const last = points.at(-1)
  if (!first || !last || points.length < 2) return ''
  const span = Math.max(1, last.at - first.at)
  return points
    .map(({ at, level }, place) => {
      const x = ((at - first.at) / span) * width
      return `${place === 0 ? 'M' : 'L'}${x.toFixed(1)},${heightOf(level, height).toFixed(1)}`
    })
    .join(' ')
}

export function heightOf(level: number, height: number): number {
  return height - (Math.min(HIGHEST, Math.max(0, level)) / HIGHEST) * height
}

/** From here on a customer is upset, and from there on angry, as the words of the levels say. */
export type Heat = 'calm' | 'tense' | 'upset'
export function heatOf(level: number): Heat {
  return level >= 6.5 ? 'upset' : level >= 4 ? 'tense' : 'calm'
}

export type Trend = 'worse' | 'better' | 'same'
export function trendOf(trend: number): Trend {
  return trend >= 0.5 ? 'worse' : trend <= -0.5 ? 'better' : 'same'
}

/** For those who see no colour. */
export const ARROWS: Readonly<Record<Trend, string>> = { worse: '↗', better: '↘', same: '→' }
