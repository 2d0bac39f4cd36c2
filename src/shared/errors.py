"""The error-code catalogue: every code that a client can receive, its HTTP status and what to do about it.

Five digits, grouped by the hundred: 100xx authentication, 200xx users, 300xx authorization, 400xx request,
501xx products, 502xx orders and payment, 503xx webhooks, 900xx system. Codes are published: they never change meaning.
"""

from enum import IntEnum
from typing import NamedTuple


class ErrorCode(IntEnum):
    NOT_AUTHENTICATED = 10001
    INVALID_CREDENTIALS = 10002
    INVALID_TOKEN = 10003
    INVALID_REFRESH_TOKEN = 10004
    REFRESH_TOKEN_REUSED = 10005
    WEAK_PASSWORD = 10006
    TOO_MANY_ATTEMPTS = 10007
    SESSION_NOT_FOUND = 10008
    INVALID_ONE_TIME_TOKEN = 10009
    SECOND_FACTOR_REQUIRED = 10010
    INVALID_SECOND_FACTOR = 10011
    INVALID_LOGIN_CHALLENGE = 10012
    STEP_UP_REQUIRED = 10013
    INVALID_PASSKEY = 10014
    INVALID_PROVIDER_ANSWER = 10015
    PROVIDER_ADDRESS_UNPROVEN = 10016
    PROVIDER_LINK_UNCONFIRMED = 10017

    USER_NOT_FOUND = 20001
    EMAIL_TAKEN = 20002
    USERNAME_TAKEN = 20003
    ROLE_NOT_FOUND = 20004
    LAST_ADMIN = 20005
    ROLE_NAME_TAKEN = 20006
    SYSTEM_ROLE = 20007
    ALREADY_JOINED = 20008
    TOTP_ALREADY_ENABLED = 20009
    TOTP_NOT_BEGUN = 20010
    NO_SECOND_FACTOR = 20011
    API_KEY_NOT_FOUND = 20012
    TOO_MANY_API_KEYS = 20013
    PASSKEY_NOT_FOUND = 20014
    PASSKEY_KNOWN = 20015
    TOO_MANY_PASSKEYS = 20016
    PASSKEYS_OFF = 20017
    PROVIDER_NOT_FOUND = 20018
    PROVIDER_LINK_NOT_FOUND = 20019
    PROVIDER_LINKED = 20020
    LAST_WAY_IN = 20021

    PERMISSION_DENIED = 30001
    ROLE_REQUIRED = 30002
    GRANT_NOT_HELD = 30003
    PERMISSION_UNKNOWN = 30004
    SESSION_REQUIRED = 30005

    INVALID_REQUEST = 40001
    IDEMPOTENCY_KEY_REQUIRED = 40002
    IDEMPOTENCY_KEY_REUSED = 40003
    IDEMPOTENCY_IN_PROGRESS = 40004
    VERSION_MISMATCH = 40005
    BODY_TOO_LARGE = 40006
    HOST_NOT_ALLOWED = 40007
    HEADERS_TOO_LARGE = 40008
    MALFORMED_REQUEST = 40009
    REQUEST_TIMEOUT = 40010

    PRODUCT_OUT_OF_STOCK = 50101
    PRODUCT_NOT_FOUND = 50102
    SKU_TAKEN = 50103
    PRODUCT_NOT_FOR_SALE = 50104
    STOCK_OUT_OF_RANGE = 50105

    ORDER_NOT_FOUND = 50201
    ORDER_TRANSITION_NOT_ALLOWED = 50202
    ORDER_TOTAL_CHANGED = 50203
    ORDER_MIXED_CURRENCIES = 50204
    PAYMENT_DECLINED = 50205
    PAYMENT_NOT_FOUND = 50206
    PAYMENT_IN_PROGRESS = 50207
    TOO_MANY_PAYMENTS = 50208
    PAYMENTS_OFF = 50209
    INVALID_CALLBACK_SIGNATURE = 50210
    PAYMENT_GIVEN_BACK = 50211

    WEBHOOK_NOT_FOUND = 50301
    WEBHOOK_DELIVERY_NOT_FOUND = 50302
    WEBHOOK_URL_REFUSED = 50303
    TOO_MANY_WEBHOOKS = 50304
    WEBHOOK_DISABLED = 50305
    WEBHOOK_DELIVERY_WAITING = 50306

    INTERNAL_ERROR = 90001
    SERVICE_UNAVAILABLE = 90002
    DEADLINE_EXCEEDED = 90003
    CONFLICTING_WRITE = 90004
    EVENT_NOT_FOUND = 90005
    EVENT_NOT_DEAD = 90006
    PROVIDER_UNAVAILABLE = 90007


ERROR_CODE_TO_HTTP = {
    ErrorCode.NOT_AUTHENTICATED: 401,
    ErrorCode.INVALID_CREDENTIALS: 401,
    ErrorCode.INVALID_TOKEN: 401,
    ErrorCode.INVALID_REFRESH_TOKEN: 401,
    ErrorCode.REFRESH_TOKEN_REUSED: 401,
    ErrorCode.WEAK_PASSWORD: 422,
    ErrorCode.TOO_MANY_ATTEMPTS: 429,
    ErrorCode.SESSION_NOT_FOUND: 404,
    ErrorCode.INVALID_ONE_TIME_TOKEN: 400,
    ErrorCode.SECOND_FACTOR_REQUIRED: 401,
    ErrorCode.INVALID_SECOND_FACTOR: 401,
    ErrorCode.INVALID_LOGIN_CHALLENGE: 401,
    ErrorCode.STEP_UP_REQUIRED: 401,
    ErrorCode.INVALID_PASSKEY: 401,
    ErrorCode.INVALID_PROVIDER_ANSWER: 401,
    ErrorCode.PROVIDER_ADDRESS_UNPROVEN: 403,
    ErrorCode.PROVIDER_LINK_UNCONFIRMED: 403,
    ErrorCode.USER_NOT_FOUND: 404,
    ErrorCode.EMAIL_TAKEN: 409,
    ErrorCode.USERNAME_TAKEN: 409,
    ErrorCode.ROLE_NOT_FOUND: 404,
    ErrorCode.LAST_ADMIN: 409,
    ErrorCode.ROLE_NAME_TAKEN: 409,
    ErrorCode.SYSTEM_ROLE: 409,
    ErrorCode.ALREADY_JOINED: 409,
    ErrorCode.TOTP_ALREADY_ENABLED: 409,
    ErrorCode.TOTP_NOT_BEGUN: 409,
    ErrorCode.NO_SECOND_FACTOR: 409,
    ErrorCode.API_KEY_NOT_FOUND: 404,
    ErrorCode.TOO_MANY_API_KEYS: 409,
    ErrorCode.PASSKEY_NOT_FOUND: 404,
    ErrorCode.PASSKEY_KNOWN: 409,
    ErrorCode.TOO_MANY_PASSKEYS: 409,
    ErrorCode.PASSKEYS_OFF: 404,
    ErrorCode.PROVIDER_NOT_FOUND: 404,
    ErrorCode.PROVIDER_LINK_NOT_FOUND: 404,
    ErrorCode.PROVIDER_LINKED: 409,
    ErrorCode.LAST_WAY_IN: 409,
    ErrorCode.PERMISSION_DENIED: 403,
    ErrorCode.ROLE_REQUIRED: 403,
    ErrorCode.GRANT_NOT_HELD: 403,
    ErrorCode.PERMISSION_UNKNOWN: 422,
    ErrorCode.SESSION_REQUIRED: 403,
    ErrorCode.INVALID_REQUEST: 422,
    ErrorCode.IDEMPOTENCY_KEY_REQUIRED: 400,
    ErrorCode.IDEMPOTENCY_KEY_REUSED: 422,
    ErrorCode.IDEMPOTENCY_IN_PROGRESS: 409,
    ErrorCode.VERSION_MISMATCH: 412,
    ErrorCode.BODY_TOO_LARGE: 413,
    ErrorCode.HOST_NOT_ALLOWED: 400,
    ErrorCode.HEADERS_TOO_LARGE: 431,
    ErrorCode.MALFORMED_REQUEST: 400,
    ErrorCode.REQUEST_TIMEOUT: 408,
    ErrorCode.PRODUCT_OUT_OF_STOCK: 409,
    ErrorCode.PRODUCT_NOT_FOUND: 404,
    ErrorCode.SKU_TAKEN: 409,
    ErrorCode.PRODUCT_NOT_FOR_SALE: 409,
    ErrorCode.STOCK_OUT_OF_RANGE: 409,
    ErrorCode.ORDER_NOT_FOUND: 404,
    ErrorCode.ORDER_TRANSITION_NOT_ALLOWED: 409,
    ErrorCode.ORDER_TOTAL_CHANGED: 409,
    ErrorCode.ORDER_MIXED_CURRENCIES: 422,
    ErrorCode.PAYMENT_DECLINED: 402,
    ErrorCode.PAYMENT_NOT_FOUND: 404,
    ErrorCode.PAYMENT_IN_PROGRESS: 409,
    ErrorCode.TOO_MANY_PAYMENTS: 409,
    ErrorCode.PAYMENTS_OFF: 404,
    ErrorCode.INVALID_CALLBACK_SIGNATURE: 401,
    ErrorCode.PAYMENT_GIVEN_BACK: 409,
    ErrorCode.WEBHOOK_NOT_FOUND: 404,
    ErrorCode.WEBHOOK_DELIVERY_NOT_FOUND: 404,
    ErrorCode.WEBHOOK_URL_REFUSED: 422,
    ErrorCode.TOO_MANY_WEBHOOKS: 409,
    ErrorCode.WEBHOOK_DISABLED: 409,
    ErrorCode.WEBHOOK_DELIVERY_WAITING: 409,
    ErrorCode.INTERNAL_ERROR: 500,
    ErrorCode.SERVICE_UNAVAILABLE: 503,
    ErrorCode.DEADLINE_EXCEEDED: 503,
    ErrorCode.CONFLICTING_WRITE: 409,
    ErrorCode.EVENT_NOT_FOUND: 404,
    ErrorCode.EVENT_NOT_DEAD: 409,
    ErrorCode.PROVIDER_UNAVAILABLE: 503,
}


class Explanation(NamedTuple):
    meaning: str
    """One sentence for people; also the `msg` when the code is raised without one."""
    advice: str
    """What the caller can do."""


ERROR_CODE_EXPLAINED = {
    ErrorCode.NOT_AUTHENTICATED: Explanation("Log in first", "Send `Authorization: Bearer <access token>`."),
    ErrorCode.INVALID_CREDENTIALS: Explanation(
        "E-mail or password is wrong",
        "Check both; the answer is the same whatever was wrong, or for an account that may not log in.",
    ),
    ErrorCode.INVALID_TOKEN: Explanation(
        "The access token is not valid", "It expired, was revoked or is not ours: refresh, or log in again."
    ),
    ErrorCode.INVALID_REFRESH_TOKEN: Explanation("The refresh token is not valid", "Log in again."),
    ErrorCode.REFRESH_TOKEN_REUSED: Explanation(
        "The refresh token was used before",
        "The session was ended, since somebody else may hold the token: log in again.",
    ),
    ErrorCode.WEAK_PASSWORD: Explanation("The password is easy to guess", "Choose a longer or less common one."),
    ErrorCode.TOO_MANY_ATTEMPTS: Explanation("Too many attempts", "Wait for the seconds that `Retry-After` gives."),
    ErrorCode.SESSION_NOT_FOUND: Explanation("No such session", "List your sessions; it may have ended."),
    ErrorCode.INVALID_ONE_TIME_TOKEN: Explanation(
        "The code is not valid", "It expired, was used, or a newer mail took its place: ask for another mail."
    ),
    ErrorCode.SECOND_FACTOR_REQUIRED: Explanation(
        "A second factor is needed",
        "Send `data.mfa_token` with a code to one of the ways in `data.methods`, within `data.expires_in` seconds.",
    ),
    ErrorCode.INVALID_SECOND_FACTOR: Explanation(
        "The code is not valid", "Type in the next one that the app shows: each is good once, for about a minute."
    ),
    ErrorCode.INVALID_LOGIN_CHALLENGE: Explanation(
        "The log-in cannot be completed any more", "It expired or was completed: begin again."
    ),
    ErrorCode.STEP_UP_REQUIRED: Explanation(
        "A second factor has to be proven first",
        "Post one to `/auth/step-up`, with `data.max_age_seconds` not longer ago than that, and repeat the request; "
        "without any, log in anew, or set one up at `/profile/security` where that is not enough.",
    ),
    ErrorCode.INVALID_PASSKEY: Explanation(
        "The passkey's answer is not valid", "Ask for new options and try again: each challenge is good once."
    ),
    ErrorCode.INVALID_PROVIDER_ANSWER: Explanation(
        "The provider's answer is not valid", "Begin the sign-in again: each answer is good once, in one browser."
    ),
    ErrorCode.PROVIDER_ADDRESS_UNPROVEN: Explanation(
        "The provider knows no verified e-mail address of yours", "Verify it there, or register here."
    ),
    ErrorCode.PROVIDER_LINK_UNCONFIRMED: Explanation(
        "There is an account with this e-mail address already",
        "Its owner got a mail with a code for `/auth/provider-links/confirm`; then the sign-in works.",
    ),
    ErrorCode.USER_NOT_FOUND: Explanation("No such user", "Check the id."),
    ErrorCode.EMAIL_TAKEN: Explanation("The e-mail address is taken", "Log in, or use another address."),
    ErrorCode.USERNAME_TAKEN: Explanation("The user name is taken", "Choose another one."),
    ErrorCode.ROLE_NOT_FOUND: Explanation("No such role", "`data.missing` names it; list the roles."),
    ErrorCode.LAST_ADMIN: Explanation("The last administrator stays", "Make somebody else an administrator first."),
    ErrorCode.ROLE_NAME_TAKEN: Explanation("The role's name is taken", "Choose another one."),
    ErrorCode.SYSTEM_ROLE: Explanation("A system role stays as it is", "Make a role of your own beside it."),
    ErrorCode.ALREADY_JOINED: Explanation(
        "The account needs no invitation", "Its owner has a password, or may not log in at all."
    ),
    ErrorCode.TOTP_ALREADY_ENABLED: Explanation(
        "An authenticator app is set up already", "Remove it first to set up another one."
    ),
    ErrorCode.TOTP_NOT_BEGUN: Explanation(
        "No authenticator app waits to be confirmed", "Begin with `POST /profile/security/totp`."
    ),
    ErrorCode.NO_SECOND_FACTOR: Explanation("There is no second factor", "Set one up first."),
    ErrorCode.API_KEY_NOT_FOUND: Explanation("No such API key", "List your keys; it may have been revoked."),
    ErrorCode.TOO_MANY_API_KEYS: Explanation(
        "There are as many API keys as an account may have", "Revoke one that is not used: `data.limit` is how many."
    ),
    ErrorCode.PASSKEY_NOT_FOUND: Explanation("No such passkey", "List your passkeys; it may have been removed."),
    ErrorCode.PASSKEY_KNOWN: Explanation("The passkey is known already", "Use it, or register another one."),
    ErrorCode.TOO_MANY_PASSKEYS: Explanation(
        "There are as many passkeys as an account may have", "Remove one that is not used: `data.limit` is how many."
    ),
    ErrorCode.PASSKEYS_OFF: Explanation(
        "This service knows no passkeys", "Whoever runs it sets `AUTH__PASSKEY_DOMAIN`; use another way to log in."
    ),
    ErrorCode.PROVIDER_NOT_FOUND: Explanation(
        "No such provider", "`GET /auth/providers` lists those that this service takes."
    ),
    ErrorCode.PROVIDER_LINK_NOT_FOUND: Explanation(
        "No such link to a provider", "List yours; it may have been removed."
    ),
    ErrorCode.PROVIDER_LINKED: Explanation(
        "It is linked already",
        "An account has one link to each provider, and whoever is known there has one account here: remove the other first.",
    ),
    ErrorCode.LAST_WAY_IN: Explanation(
        "Nothing else would log in to the account", "Set a password first, by `/auth/password/forgot`."
    ),
    ErrorCode.PERMISSION_DENIED: Explanation(
        "You may not do this", "`data.required` names the permissions; ask an administrator."
    ),
    ErrorCode.ROLE_REQUIRED: Explanation(
        "You may not do this", "`data.required` names the roles; ask an administrator."
    ),
    ErrorCode.GRANT_NOT_HELD: Explanation(
        "You can give or take only what you hold", "`data.missing` names the permissions that you do not hold."
    ),
    ErrorCode.PERMISSION_UNKNOWN: Explanation(
        "No such permission", "`data.unknown` names those that no route asks for; list the permissions."
    ),
    ErrorCode.SESSION_REQUIRED: Explanation(
        "An API key does not do this", "Log in: what changes how somebody logs in is not for machines."
    ),
    ErrorCode.INVALID_REQUEST: Explanation(
        "The request is not valid", "`data.errors` names each field and what is wrong with it."
    ),
    ErrorCode.IDEMPOTENCY_KEY_REQUIRED: Explanation(
        "This request needs an Idempotency-Key",
        "Send a fresh random key with each new intent, and the same one when you retry it.",
    ),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: Explanation(
        "The Idempotency-Key was used for another request", "Use a fresh key for a new intent."
    ),
    ErrorCode.IDEMPOTENCY_IN_PROGRESS: Explanation(
        "The first request with this Idempotency-Key is still under way",
        "Retry with the same key after `Retry-After` seconds.",
    ),
    ErrorCode.VERSION_MISMATCH: Explanation(
        "Somebody else changed it meanwhile",
        "Read it again (`data.version` is the current one), then repeat the change.",
    ),
    ErrorCode.BODY_TOO_LARGE: Explanation("The request body is too large", "`data.limit_bytes` is what is accepted."),
    ErrorCode.HOST_NOT_ALLOWED: Explanation(
        "This service does not answer to that host", "Send one Host header with the service's name."
    ),
    ErrorCode.HEADERS_TOO_LARGE: Explanation("The request headers are too large", "Send fewer or shorter ones."),
    ErrorCode.MALFORMED_REQUEST: Explanation("This is not an HTTP request", "Use a client that speaks HTTP/1.1."),
    ErrorCode.REQUEST_TIMEOUT: Explanation("The request headers took too long", "Send them in one go."),
    ErrorCode.PRODUCT_OUT_OF_STOCK: Explanation(
        "Not enough in stock", "`data.items` lists each short line with what is `available`: order less, or later."
    ),
    ErrorCode.PRODUCT_NOT_FOUND: Explanation("No such product", "Check the id."),
    ErrorCode.SKU_TAKEN: Explanation("The SKU is taken", "Choose another one, or change the product that has it."),
    ErrorCode.PRODUCT_NOT_FOR_SALE: Explanation("The product is not for sale", "Take it out of the basket."),
    ErrorCode.STOCK_OUT_OF_RANGE: Explanation(
        "The stock cannot go there", "At most `data.available` can be taken out, and `data.highest` be kept."
    ),
    ErrorCode.ORDER_NOT_FOUND: Explanation(
        "No such order", "Check the id; somebody else's order does not exist for you."
    ),
    ErrorCode.ORDER_TRANSITION_NOT_ALLOWED: Explanation(
        "The order's status does not allow this", "`data.status` is what it is now, `data.allowed` where it can go."
    ),
    ErrorCode.ORDER_TOTAL_CHANGED: Explanation(
        "The price changed", "`data.total_minor` is the total now: ask the buyer again."
    ),
    ErrorCode.ORDER_MIXED_CURRENCIES: Explanation("One order has one currency", "Split the basket by currency."),
    ErrorCode.PAYMENT_DECLINED: Explanation(
        "The payment was declined",
        "`data.decline_code` is the provider's reason: offer another way to pay, with a new Idempotency-Key.",
    ),
    ErrorCode.PAYMENT_NOT_FOUND: Explanation("No such payment", "Check the id; each payment is of one order."),
    ErrorCode.PAYMENT_IN_PROGRESS: Explanation(
        "A payment of this order is under way",
        "Look at payment `data.payment_id` after `Retry-After` seconds; do not begin another one.",
    ),
    ErrorCode.TOO_MANY_PAYMENTS: Explanation(
        "Too many payments of this order", "It takes `data.limit`, declined ones included: place it anew."
    ),
    ErrorCode.PAYMENTS_OFF: Explanation(
        "This service takes no payments", "Orders are marked as paid by staff here; or set PAYMENTS__URL."
    ),
    ErrorCode.INVALID_CALLBACK_SIGNATURE: Explanation(
        "Not signed by the payment provider", "Sign with the secret of PAYMENTS__CALLBACK_SECRETS, within five minutes."
    ),
    ErrorCode.PAYMENT_GIVEN_BACK: Explanation(
        "The payment of this Idempotency-Key was given back",
        "The order still waits for its money: pay it with a new Idempotency-Key.",
    ),
    ErrorCode.WEBHOOK_NOT_FOUND: Explanation("No such webhook", "List yours; somebody else's does not exist for you."),
    ErrorCode.WEBHOOK_DELIVERY_NOT_FOUND: Explanation(
        "No such delivery", "List those of the webhook; they are forgotten after 30 days."
    ),
    ErrorCode.WEBHOOK_URL_REFUSED: Explanation(
        "Nothing is sent to such a URL",
        "Write https://name/path with a name that the DNS knows, of a server on the public Internet.",
    ),
    ErrorCode.TOO_MANY_WEBHOOKS: Explanation(
        "There are as many webhooks as an account may have", "Delete one that is not used: `data.limit` is how many."
    ),
    ErrorCode.WEBHOOK_DISABLED: Explanation(
        "The webhook is disabled", "Enable it first: `PATCH` it with `is_enabled`."
    ),
    ErrorCode.WEBHOOK_DELIVERY_WAITING: Explanation(
        "It waits to be delivered", "Do nothing: `next_attempt_at` says when."
    ),
    ErrorCode.INTERNAL_ERROR: Explanation(
        "Something went wrong on our side", "Retry later; quote the request id if it stays."
    ),
    ErrorCode.SERVICE_UNAVAILABLE: Explanation("The service cannot answer now", "Retry after `Retry-After` seconds."),
    ErrorCode.DEADLINE_EXCEEDED: Explanation("The request took too long", "Retry after `Retry-After` seconds."),
    ErrorCode.CONFLICTING_WRITE: Explanation("The change conflicts with another one", "Read again and retry."),
    ErrorCode.EVENT_NOT_FOUND: Explanation(
        "No such event", "Check the id; what was delivered more than a day ago is forgotten."
    ),
    ErrorCode.PROVIDER_UNAVAILABLE: Explanation(
        "The provider does not answer now", "Begin the sign-in again after `Retry-After` seconds, or log in otherwise."
    ),
    ErrorCode.EVENT_NOT_DEAD: Explanation("The event was not given up", "It is delivered, or will be: do nothing."),
}


def explain(code: ErrorCode) -> Explanation:
    """A code without an explanation of its own is explained by its name."""
    return ERROR_CODE_EXPLAINED.get(code) or Explanation(code.name.replace("_", " ").capitalize(), "")


def http_status(code: ErrorCode) -> int:
    return ERROR_CODE_TO_HTTP.get(code, 400)
