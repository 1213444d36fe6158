/** Steps of a call's scripts as points on its timeline. */

import type { Names, Progress, StepState } from '../api/types'

export interface Node {
  key: string
  name: Names
  state: StepState
  /** Media time: when it was done, or when it should have been. */
  ms: number
}

/** In order of time; steps that are still to come have no place yet. */
export function nodesOf(lists: readonly Progress[]): Node[] {
  return lists
    .flatMap((list) =>
      list.steps.flatMap((step) => {
        const ms = step.done_ms ?? (step.state === 'missed' ? step.due_ms : null)
        return ms == null ? [] : [{ key: `${list.script} ${step.id}`, name: step.name, state: step.state, ms }]
      }),
    )
    .sort((a, b) => a.ms - b.ms)
}
