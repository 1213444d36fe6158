/** What the pages for administrators share. */

import { ref, type Ref } from 'vue'

import { ApiError } from '@/api/http'

/** Teams as people write them: separated by commas (also Chinese ones) or line ends. */
export function teamsOf(text: string): string[] {
  return [...new Set(text.split(/[,，、;；\n]/).map((each) => each.trim()))].filter((each) => each !== '')
}

/** Does one thing after the other, and keeps what went wrong with the last. */
export function useDoing(): {
  busy: Ref<boolean>
  error: Ref<ApiError | null>
  attempt: <T>(act: () => Promise<T>) => Promise<T | undefined>
} {
  const busy = ref(false)
  const error = ref<ApiError | null>(null)
  async function attempt<T>(act: () => Promise<T>): Promise<T | undefined> {
    if (busy.value) return undefined
    busy.value = true
    error.value = null
    try {
      return await act()
    } catch (caught) {
      error.value = caught instanceof ApiError ? caught : new ApiError('unexpected', 0)
      return undefined
    } finally {
      busy.value = false
    }
  }
  return { busy, error, attempt }
}
