// What the device is like.

/** A finger is one of its pointers: then there may be an on-screen keyboard. */
export function isTouched(): boolean {
  return matchMedia('(any-pointer: coarse)').matches;
}

/** Whether WebGL is drawn by hardware: in software it blocks the page for most of a second while output pours. */
export function hasFastGl(): boolean {
  // Chromium does not count its software renderer as the caveat: its name tells.
  const context = document.createElement('canvas').getContext('webgl2', { failIfMajorPerformanceCaveat: true });
  if (!context) return false;
  const names = context.getExtension('WEBGL_debug_renderer_info');
  const renderer = String(context.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : context.RENDERER));
  context.getExtension('WEBGL_lose_context')?.loseContext();
  return !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(renderer);
}
