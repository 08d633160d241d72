/** What the tests use of `oidc-provider`, which comes without types. */
declare module "oidc-provider" {
  import type { IncomingMessage, ServerResponse } from "node:http";

  export default class Provider {
    constructor(issuer: string, configuration: object);
    callback(): (request: IncomingMessage, response: ServerResponse) => Promise<void>;
    interactionFinished(request: IncomingMessage, response: ServerResponse, result: object): Promise<void>;
    readonly Grant: new (properties: object) => { addOIDCScope(scope: string): void; save(): Promise<string> };
    on(event: string, listener: (context: unknown, error: Error) => void): void;
  }
}
