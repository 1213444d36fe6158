/** How the floor feels: the mean of what customers were heard to feel, half a minute each. Pure, bounded. */

const STEP_MS = 30_000
const STEPS = 40
/** A mean over fewer says more about one customer than about the floor. */
const FEWEST = 3

export interface FloorPoint {
  /** When its half minute begins, wall clock. */
  at: number
  level: number
  count: number
}

export class FloorMood {
  private readonly steps = new Map<number, { sum: number; count: number }>()

  add(at: number, level: number): void {
    if (!Number.isFinite(at) || !Number.isFinite(level)) return
    const step = Math.floor(at / STEP_MS)
    const known = this.steps.get(step)
    if (known) {
      known.sum += level
      known.count += 1
      return
    }
    this.steps.set(step, { sum: level, count: 1 })
    if (this.steps.size > STEPS) this.steps.delete(Math.min(...this.steps.keys()))
  }

  clear(): void {
    this.steps.clear()
  }

  /** Oldest first, of the last twenty minutes; half minutes in which hardly anybody spoke are left out. */
  points(now: number): FloorPoint[] {
    const oldest = Math.floor(now / STEP_MS) - STEPS
    return [...this.steps]
      .filter(([step, { count }]) => step > oldest && count >= FEWEST)
      .sort(([a], [b]) => a - b)
      .map(([step, { sum, count }]) => ({ at: step * STEP_MS, level: sum / count, count }))
  }
}
