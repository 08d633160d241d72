/** Sets of addresses: IPs and CIDRs, version 4 and 6. */
import { BlockList, isIP } from "node:net";
import { readEntries } from "./entries.ts";

export interface Addresses {
  has(address: string | undefined): boolean;
  readonly size: number;
}

/** A comma-separated list, or a JSON array. Undefined when an entry is neither an address nor a CIDR: host names are none. */
export function readAddresses(text: string): Addresses | undefined {
  const entries = readEntries(text)?.map(rangeOf);
  if (entries === undefined) return undefined;
  const list = new BlockList();
  for (const range of entries) {
    if (range === undefined) return undefined;
    const { address, family, bits } = range;
    if (bits === undefined) list.addAddress(address, family);
    else list.addSubnet(address, bits, family);
  }
  return { size: entries.length, has: (address) => isIn(list, address) };
}

/** The first entry because of which `readAddresses` refuses the text; undefined when that is no list at all, or nothing is wrong. */
export function wrongAddress(text: string): string | undefined {
  return readEntries(text)?.find((entry) => rangeOf(entry) === undefined);
}

function rangeOf(entry: string): { address: string; family: "ipv4" | "ipv6"; bits: number | undefined } | undefined {
  const [, address = "", digits] = /^([0-9a-fA-F.:]+?)(?:\/(\d{1,3}))?$/.exec(entry) ?? [];
  const version = isIP(address);
  const bits = digits === undefined ? undefined : Number(digits);
  if (version === 0 || (bits ?? 0) > (version === 4 ? 32 : 128)) return undefined;
  return { address, family: version === 4 ? "ipv4" : "ipv6", bits };
}

export const nobody: Addresses = { size: 0, has: () => false };

function isIn(list: BlockList, address: string | undefined): boolean {
  const bare = address?.replace(/^::ffff:(?=\d+\.)/i, "").replace(/%.*$/, "") ?? "";
  const version = isIP(bare);
  return version !== 0 && list.check(bare, version === 4 ? "ipv4" : "ipv6");
}
