/** The folder that the page was loaded from: below a front server it may have any path. */
export function base(): URL {
  return new URL('.', location.origin + location.pathname);
}
