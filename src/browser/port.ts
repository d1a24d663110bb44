/** A way for messages, whatever it is made of: a worker's, or a channel between tabs. */

/** Posts messages in order; what is in `transfer` is handed over where that is possible, else copied. */
export interface Port<Message> {
  post(message: Message, transfer?: Transferable[]): void;
}

/**
 * A port that posts all messages of one turn as one: a message costs some 50 µs, whatever is in it. The other side gets arrays; see {@link receive}.
 */
export function batchingPort<Message>(post: (messages: Message[], transfer: Transferable[]) => void): Port<Message> {
  let messages: Message[] = [];
  let transfers: Transferable[] = [];
  return {
    post(message, transfer = []) {
      if (messages.length === 0) {
        queueMicrotask(() => {
          const [all, handedOver] = [messages, transfers];
          messages = [];
          transfers = [];
          post(all, handedOver);
        });
      }
      messages.push(message);
      transfers.push(...transfer);
    },
  };
}

/** Hands each message of the arrays that arrive to `take`. */
export function receive<Message>(from: Pick<EventTarget, 'addEventListener'>, take: (message: Message) => void): void {
  from.addEventListener('message', (event) => {
    for (const message of (event as MessageEvent<Message[]>).data) take(message);
  });
}
