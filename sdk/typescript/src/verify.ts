/**
 * Verify deliveries: Standard Webhooks 1.0, symmetric signatures (v1).
 * https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
 */
import { Buffer } from "node:buffer";
import { createHmac, timingSafeEqual } from "node:crypto";

const PREFIX = "whsec_";
const MIN_BYTES = 24;
const MAX_BYTES = 64;
const TOLERANCE_SECONDS = 300;

/** The headers of a request: those of `fetch`, or the object of Node's `http`. Names are compared without case. */
export type DeliveryHeaders = Headers | Record<string, string | readonly string[] | undefined>;

export interface VerifyOptions {
  /** How far `webhook-timestamp` may be from this machine's clock, in seconds. Default 300. */
  toleranceSeconds?: number;
  /** The present instant, in milliseconds since 1970. Default `Date.now()`. */
  now?: number;
}

/** What the headers of a verified delivery say. */
export interface Delivery {
  /** `webhook-id`: the task's id, the same on every attempt. */
  id: string;
  /** `webhook-timestamp`: when the delivery was signed. */
  timestamp: Date;
}

/** Thrown if a request is not a delivery that one of the secrets has signed. Answer 401 or 400. */
export class VerificationError extends Error {
  override name = "VerificationError";
}

/**
 * Verify a delivery.
 *
 * @param secrets The handler's signing secret, `whsec_…`; several while it is rotated. One match is enough.
 * @param body The body's bytes as they came, or their text: not what was parsed from it.
 * @throws VerificationError if a header is missing or malformed, the timestamp is too far off, or no signature matches.
 * @throws TypeError if a secret is none, or there is none.
 */
export function verify(
  secrets: string | readonly string[],
  body: string | Uint8Array,
  headers: DeliveryHeaders,
  options: VerifyOptions = {},
): Delivery {
  const keys = (typeof secrets === "string" ? [secrets] : secrets).map(keyOf);
  if (keys.length === 0) {
    throw new TypeError("verify() needs a signing secret");
  }
  const id = header(headers, "webhook-id");
  const sent = header(headers, "webhook-timestamp");
  if (!/^\d{1,12}$/.test(sent)) {
    throw new VerificationError("webhook-timestamp is not a number of seconds");
  }
  const seconds = Number(sent);
  const now = (options.now ?? Date.now()) / 1000;
  if (!(Math.abs(now - seconds) <= (options.toleranceSeconds ?? TOLERANCE_SECONDS))) {
    throw new VerificationError("webhook-timestamp is too far from this machine's clock");
  }
  const signatures = header(headers, "webhook-signature")
    .split(" ")
    .filter((signature) => signature.startsWith("v1,"))
    .map((signature) => Buffer.from(signature.slice(3), "base64"));
  for (const key of keys) {
    const expected = createHmac("sha256", key).update(`${id}.${sent}.`).update(body).digest();
    if (signatures.some((given) => given.length === expected.length && timingSafeEqual(given, expected))) {
      return { id, timestamp: new Date(seconds * 1000) };
    }
  }
  throw new VerificationError("no signature in webhook-signature matches");
}

function keyOf(secret: string): Buffer {
  const text = secret.startsWith(PREFIX) ? secret.slice(PREFIX.length) : "";
  const key = Buffer.from(text, "base64");
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text) || key.length < MIN_BYTES || key.length > MAX_BYTES) {
    throw new TypeError(`a signing secret is ${PREFIX} and the base64 of ${MIN_BYTES} to ${MAX_BYTES} bytes`);
  }
  return key;
}

function header(headers: DeliveryHeaders, name: string): string {
  let value: string | readonly string[] | null | undefined;
  if (headers instanceof Headers) {
    value = headers.get(name);
  } else {
    const found = Object.keys(headers).filter((given) => given.toLowerCase() === name);
    value = found.length === 1 ? headers[found[0]!] : undefined;
  }
  if (typeof value !== "string" || value === "") {
    throw new VerificationError(`${name} is missing, or is given more than once`);
  }
  return value;
}
