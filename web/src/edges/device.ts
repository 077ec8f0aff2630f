// What the device is like.

/** A finger is one of its pointers: then there may be an on-screen keyboard. */
export function isTouched(): boolean {
  return matchMedia('(any-pointer: coarse)').matches;
}
