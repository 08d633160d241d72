/** Sets of addresses: IPs and CIDRs, version 4 and 6. */
import { BlockList, isIP } from "node:net";
import { readEntries } from "./entries.ts";

export interface Addresses {
  has(address: string | undefined): boolean;
  readonly size: number;
}

/** A comma-separated list, or a JSON array. Undefined when an entry is neither an address nor a CIDR: host names are none. */
export function readAddresses(text: string): Addresses | undefined {
  const entries = readEntries(text);
  if (entries === undefined) return undefined;
  const list = new BlockList();
  for (const entry of entries) {
    const [, address = "", bits] = /^([0-9a-fA-F.:]+?)(?:\/(\d{1,3}))?$/.exec(entry) ?? [];
    const version = isIP(address);
    if (version === 0) return undefined;
    const family = version === 4 ? "ipv4" : "ipv6";
    if (bits === undefined) list.addAddress(address, family);
    else if (Number(bits) <= (version === 4 ? 32 : 128)) list.addSubnet(address, Number(bits), family);
    else return undefined;
  }
  return { size: entries.length, has: (address) => isIn(list, address) };
}

export const nobody: Addresses = { size: 0, has: () => false };

function isIn(list: BlockList, address: string | undefined): boolean {
  const bare = address?.replace(/^::ffff:(?=\d+\.)/i, "").replace(/%.*$/, "") ?? "";
  const version = isIP(bare);
  return version !== 0 && list.check(bare, version === 4 ? "ipv4" : "ipv6");
}
