/**
 * A TCP proxy in front of PostgreSQL that misbehaves on demand: cuts connections with a reset, refuses new ones, or swallows
 * everything in silence the way a dead network does. It can also read along, message by message.
 */
import { once } from "node:events";
import { type AddressInfo, type Server, type Socket, createServer, connect } from "node:net";

/** One message of the PostgreSQL protocol. The first of a connection has no type; it is given as "startup". */
export interface Message {
  readonly type: string;
  readonly body: Buffer;
  readonly raw: Buffer;
}

/** What to do with bytes before they are passed on. False swallows them. */
export type Tap = (message: Message, link: Link) => boolean | void;

/** One connection through the proxy. */
export class Link {
  readonly client: Socket;
  readonly server: Socket;
  #frozen = false;
  readonly #heldBack: (() => void)[] = [];

  constructor(client: Socket, server: Socket) {
    this.client = client;
    this.server = server;
  }

  /** Hands bytes, or the news of how the other side ended, on to one side. */
  pass(what: Buffer | "goodbye" | "reset", to: Socket): void {
    if (this.#frozen) this.#heldBack.push(() => this.pass(what, to));
    else if (what === "reset") to.resetAndDestroy();
    else if (!to.writable) return;
    else if (what === "goodbye") to.end();
    else to.write(what);
  }

  /** From now on nothing arrives on either side, not even the news that the other has hung up. */
  freeze(): void {
    this.#frozen = true;
  }

  /** What was held back arrives now. */
  thaw(): void {
    this.#frozen = false;
    for (const pass of this.#heldBack.splice(0)) pass();
  }

  /** A reset on both sides. */
  cut(): void {
    this.client.resetAndDestroy();
    this.server.resetAndDestroy();
  }
}

/** A dead network passes no goodbye on either: who hangs up is answered only when the other side has hung up too. */
const options = { allowHalfOpen: true };

export class Proxy implements AsyncDisposable {
  readonly links = new Set<Link>();
  /** Called for each message; return false to swallow it. */
  onClientMessage: Tap | undefined;
  onServerMessage: Tap | undefined;
  /** New connections are accepted and never answered. */
  stallsNew = false;
  readonly #target: URL;
  readonly #port: number;
  #server: Server;

  private constructor(target: URL, server: Server) {
    this.#target = target;
    this.#server = server;
    this.#port = (server.address() as AddressInfo).port;
    server.on("connection", this.#welcome);
  }

  /** Listens on a free port of this machine. */
  static async to(url: string): Promise<Proxy> {
    const server = createServer(options).listen(0, "127.0.0.1");
    await once(server, "listening");
    return new Proxy(new URL(url), server);
  }

  /** The database's URL, by way of this proxy. */
  get url(): string {
    const url = new URL(this.#target);
    url.hostname = "127.0.0.1";
    url.port = String(this.#port);
    return url.href;
  }

  /** Resets every connection; new ones are welcome. */
  cut(): void {
    for (const link of this.links) link.cut();
  }

  /** Resets every connection and refuses new ones. */
  async refuse(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.cut();
    await closed;
  }

  async accept(): Promise<void> {
    this.#server = createServer(options, this.#welcome).listen(this.#port, "127.0.0.1");
    await once(this.#server, "listening");
  }

  /** Freezes the connections there are; with `stallsNew`, new ones are frozen from the start. */
  freeze(): void {
    for (const link of this.links) link.freeze();
  }

  thaw(): void {
    this.stallsNew = false;
    for (const link of this.links) link.thaw();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) await this.refuse();
    else this.cut();
  }

  readonly #welcome = (client: Socket): void => {
    const server = connect({ ...options, host: this.#target.hostname, port: Number(this.#target.port || 5432) });
    const link = new Link(client, server);
    if (this.stallsNew) link.freeze();
    this.links.add(link);
    client.setNoDelay(true);
    server.setNoDelay(true);
    const fromClient = new Messages(true);
    const fromServer = new Messages(false);
    client.on("data", (bytes: Buffer) => {
      for (const message of fromClient.read(bytes))
        if (this.onClientMessage?.(message, link) !== false) link.pass(message.raw, server);
    });
    server.on("data", (bytes: Buffer) => {
      for (const message of fromServer.read(bytes))
        if (this.onServerMessage?.(message, link) !== false) link.pass(message.raw, client);
    });
    client.on("error", () => undefined); // resets are what this proxy is for; "close" follows
    server.on("error", () => undefined);
    client.on("end", () => link.pass("goodbye", server));
    server.on("end", () => link.pass("goodbye", client));
    const closed = (other: Socket, hadError: boolean): void => {
      link.pass(hadError ? "reset" : "goodbye", other);
      if (other.destroyed) this.links.delete(link);
    };
    client.on("close", (hadError) => closed(server, hadError));
    server.on("close", (hadError) => closed(client, hadError));
  };
}

/** Cuts a stream of bytes into messages: a type (but for a client's first), a length that counts itself, a body. */
class Messages {
  #rest: Buffer = Buffer.alloc(0);
  #untyped: boolean;

  constructor(startsUntyped: boolean) {
    this.#untyped = startsUntyped;
  }

  *read(bytes: Buffer): Generator<Message> {
    this.#rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    for (;;) {
      const head = this.#untyped ? 0 : 1;
      if (this.#rest.length < head + 4) return;
      const end = head + this.#rest.readInt32BE(head);
      if (this.#rest.length < end) return;
      const raw = this.#rest.subarray(0, end);
      const type = this.#untyped ? "startup" : String.fromCharCode(raw[0] as number);
      this.#rest = this.#rest.subarray(end);
      this.#untyped = false;
      yield { type, raw, body: raw.subarray(head + 4) };
    }
  }
}

/** The texts of a message that end with a zero byte, up to `count` of them: names and SQL stand first. */
export function texts(message: Message, count: number): string[] {
  const found: string[] = [];
  for (let at = 0; found.length < count && at < message.body.length;) {
    const end = message.body.indexOf(0, at);
    if (end < 0) break;
    found.push(message.body.toString("utf8", at, end));
    at = end + 1;
  }
  return found;
}
