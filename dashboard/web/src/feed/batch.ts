/**
 * Events come one by one, the page changes a few times a second: the first after a silence with the next frame,
 * those that follow it together. More often nobody can read, and each change costs the layout and the painting
 * of the page, whatever it is. What waits is bounded, and a page that nobody sees (it gets no frames, and its
 * timers are held back) goes on by the events themselves.
 */

export interface Frames {
  /** Calls back before the next picture, or after so long if it is not 0; the number cancels it. */
  request(act: () => void, inMs: number): number
  cancel(id: number): void
  hidden(): boolean
  /** Whether the page has more urgent things to draw. */
  busy(): boolean
  now(): number
}

/** More than so many are not left to wait. */
const MOST_WAITING = 4000
/** From one change of the page to the next. */
const SHOWN_MS = 100
const BUSY_MS = 300
/** How often a page that nobody sees takes what came. */
const HIDDEN_MS = 200

export class Batch<T> {
  private waiting: T[] = []
  private frame: number | null = null
  private takenAt = -Infinity

  constructor(
    private readonly take: (events: T[]) => void,
    private readonly frames: Frames,
  ) {}

  add(event: T): void {
    this.waiting.push(event)
    if (this.waiting.length >= MOST_WAITING) this.flush()
    else if (this.frames.hidden()) {
      if (this.frames.now() - this.takenAt >= HIDDEN_MS) this.flush()
      else this.frame ??= this.frames.request(() => this.flush(), HIDDEN_MS)
    } else if (this.frame === null) {
      const due = this.takenAt + (this.frames.busy() ? BUSY_MS : SHOWN_MS)
      this.frame = this.frames.request(() => this.flush(), Math.max(0, due - this.frames.now()))
    }
  }

  /** Takes at once what waits. */
  flush(): void {
    if (this.frame !== null) this.frames.cancel(this.frame)
    this.frame = null
    this.takenAt = this.frames.now()
    if (this.waiting.length === 0) return
    const events = this.waiting
    this.waiting = []
    this.take(events)
  }

  /** Lets go what waits. */
  clear(): void {
    if (this.frame !== null) this.frames.cancel(this.frame)
    this.frame = null
    this.waiting = []
  }
}
