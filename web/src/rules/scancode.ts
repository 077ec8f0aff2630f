// A key as SPICE sends it: the bytes that a keyboard would send, the first one lowest.

/** `scan`: the key's code in XT's set, extended ones as 0xe0XX. */
export function spiceCode(code: string, scan: number, down: boolean): number {
  // A table of single codes has SysRq here, which the key is only together with Alt.
  const one = code === 'PrintScreen' ? 0xe037 : scan;
  const last = (one & 0x7f) | (down ? 0 : 0x80);
  return one > 0xff ? 0xe0 | (last << 8) : last;
}
