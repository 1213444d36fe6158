/** Who is logged in. Rights are checked on the server; here only what to show follows from them. */

import { computed, ref } from 'vue'

import { api, ApiError } from '@/api/http'
import type { User } from '@/api/types'

export const user = ref<User | null>(null)
/** Why the login page is shown again. */
export const expired = ref(false)
export const mayAdminister = computed(() => user.value?.role === 'administrator')
export const mayWatch = computed(() => user.value !== null && user.value.role !== 'agent')

let asked: Promise<void> | null = null

/** Asks the server once whose session this is; a server that does not answer leaves it open. */
export function knowSession(): Promise<void> {
  asked ??= api
    .session()
    .then((answer) => {
      user.value = answer.user
    })
    .catch((error: unknown) => {
      if (!(error instanceof ApiError) || error.status !== 401) asked = null
      user.value = null
    })
  return asked
}

export async function login(username: string, password: string): Promise<void> {
  const answer = await api.login(username, password)
  user.value = answer.user
  expired.value = false
  asked = Promise.resolve()
}

/** At the desk, which may stand in the frame of another page. */
export async function deskLogin(username: string, password: string): Promise<void> {
  const answer = await api.deskLogin(username, password)
  user.value = answer.user
  expired.value = false
  asked = Promise.resolve()
}

export async function logout(): Promise<void> {
  // Also a server that cannot be reached must not keep a person logged in on this screen.
  await api.logout().catch(() => undefined)
  forget()
}

export function forget(): void {
  user.value = null
  asked = Promise.resolve()
}
