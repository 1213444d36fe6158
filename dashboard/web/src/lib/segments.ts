/** Cuts a text into pieces, marked and unmarked. Ranges count code points, as Python does. */

export interface Mark<T> {
  start: number
  end: number
  value: T
}

export interface Segment<T> {
  text: string
  /** Everything that marks this piece; empty for plain text. */
  values: T[]
}

/** Pieces that together are `text` again. Ranges may overlap; those outside the text are cut off. */
export function segments<T>(text: string, marks: readonly Mark<T>[]): Segment<T>[] {
  const characters = Array.from(text)
  const kept = marks
    .map((mark) => ({ ...mark, start: Math.max(0, mark.start), end: Math.min(characters.length, mark.end) }))
    .filter((mark) => mark.end > mark.start)
  const cuts = new Set([0, characters.length])
  for (const mark of kept) cuts.add(mark.start).add(mark.end)
  const edges = [...cuts].sort((a, b) => a - b)
  const pieces: Segment<T>[] = []
  for (let index = 0; index + 1 < edges.length; index += 1) {
    const start = edges[index] ?? 0
    const end = edges[index + 1] ?? 0
    const values = kept.filter((mark) => mark.start <= start && mark.end >= end).map((mark) => mark.value)
    pieces.push({ text: characters.slice(start, end).join(''), values })
  }
  return pieces
}

/**
 * Where the words of an alert stand in `text`. The spans count in the evidence's own text; when that
 * is another one (several utterances joined, or masked since), the matched words are looked for.
 */
export function placesOf(
  evidence: { text: string; spans?: [number, number][]; matched?: string[] },
  text: string,
): [number, number][] {
  const spans = evidence.spans ?? []
  if (evidence.text === text && spans.length > 0) return spans
  const found: [number, number][] = []
  for (const words of evidence.matched ?? []) {
    const at = words === '' ? -1 : text.indexOf(words)
    if (at < 0) continue
    const start = Array.from(text.slice(0, at)).length
    found.push([start, start + Array.from(words).length])
  }
  return found
}
