/** A name for the loopback address that browsers do not trust as they trust localhost. */
export const PLAIN_HOST = 'nas.test';
