export type { components, operations, paths } from "./schema.js";
export { verify, VerificationError } from "./verify.js";
export type { Delivery, DeliveryHeaders, VerifyOptions } from "./verify.js";
