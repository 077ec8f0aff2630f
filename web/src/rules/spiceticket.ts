// The ticket by which each SPICE channel begins: the password, encrypted to the server's key.

/** SPICE's keys have 1024 bits (SPICE_TICKET_KEY_PAIR_LENGTH), and so have its tickets. */
const BYTES = 128;

/**
 * spice-html5 writes the encrypted number without the zeros that it begins with: one in 256 is too short, and the server
 * then answers "permission denied" on a channel. This puts them back.
 */
export function wholeTicket(ticket: number[]): number[] {
  return [...Array<number>(Math.max(0, BYTES - ticket.length)).fill(0), ...ticket];
}
