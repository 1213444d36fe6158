/**
 * Which element shows which call: one that has left the view is used again for one that came into it. To fill an
 * element with another call is less work than to make one, and leaves no waste. Pure.
 */
export class Slots {
  private of = new Map<string, string>()
  private free: string[] = []
  private made = 0

  /**
   * The element of each call, in the order of the calls; a call keeps its own as long as it is in view.
   *
   * That of `focused` is never given to another: whoever has the keyboard there must not find it at another call.
   */
  assign(ids: readonly string[], focused: string | null): string[] {
    const wanted = new Set(ids)
    for (const [id, slot] of this.of) {
      if (wanted.has(id)) continue
      this.of.delete(id)
      if (id !== focused) this.free.push(slot)
    }
    const slots = ids.map((id) => {
      const slot = this.of.get(id) ?? this.free.pop() ?? `slot ${(this.made += 1)}`
      this.of.set(id, slot)
      return slot
    })
    // What nobody takes now is gone from the page.
    this.free = []
    return slots
  }
}
