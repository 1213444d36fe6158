/** What a failure is called in the person's language: our own words first, then the server's. */

import type { ApiError } from '@/api/http'
import { localName } from '@/i18n'

export function errorText(error: ApiError, t: (key: string) => string, te: (key: string) => boolean): string {
  const key = `error.${error.code}`
  if (te(key)) return t(key)
  const told = localName(error.text)
  if (told) return told
  return t(error.status === 403 ? 'error.forbidden' : 'error.unexpected')
}
