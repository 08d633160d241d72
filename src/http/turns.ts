/**
 * Requests of one connection are handled one after the other. Node hands over everything that one read brought, a thousand and more
 * when they are small, and each answer would be made and kept until somebody reads it.
 */
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** Requests that a client may send ahead of its answers, each with up to 16 KiB of headers. Browsers and our own client send none. */
const aheadMax = 10;

/** `cut`: hears of connections that are closed because more was sent ahead. */
export function inTurn(handle: RequestListener, cut: (socket: Socket) => void): RequestListener {
  const lines = new WeakMap<Socket, [IncomingMessage, ServerResponse][]>();

  const begin = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    outgoing.once("close", () => next(incoming.socket));
    handle(incoming, outgoing);
  };
  const next = (socket: Socket): void => {
    const following = socket.destroyed || socket.writableEnded ? undefined : lines.get(socket)?.shift();
    if (following === undefined) lines.delete(socket);
    else begin(...following);
  };

  return (incoming, outgoing) => {
    const { socket } = incoming;
    const line = lines.get(socket);
    if (line === undefined) {
      lines.set(socket, []);
      begin(incoming, outgoing);
    } else if (line.length < aheadMax) line.push([incoming, outgoing]);
    else if (!socket.destroyed) {
      cut(socket);
      socket.destroy();
    }
  };
}
