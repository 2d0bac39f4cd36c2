"""What can be done with credentials and sessions, by business verb."""

from src.auth.services.addresses import (
    confirm_email_change,
    offer_new_address,
    request_email_change,
    request_verification,
    send_verification,
    verify_email,
)
from src.auth.services.api_keys import (
    create_api_key,
    list_api_keys,
    note_use,
    revoke_api_key,
    revoke_api_keys_of,
)
from src.auth.services.callers import Account, find_account, get_grants
from src.auth.services.closing import deactivate_own, delete_own, delete_user, update_user
from src.auth.services.devices import Device
from src.auth.services.factors import (
    begin_totp,
    confirm_totp,
    remove_totp,
    renew_recovery_codes,
    require_second_factor,
    reset_second_factors,
    step_up,
)
from src.auth.services.keys import get_key_set, rotate_keys
from src.auth.services.logging_in import finish_login, log_in
from src.auth.services.overview import get_security
from src.auth.services.passkeys import (
    add_passkey,
    begin_passkey,
    begin_passkey_login,
    begin_passkey_step_up,
    list_passkeys,
    log_in_by_passkey,
    remove_passkey,
    rename_passkey,
    step_up_by_passkey,
)
from src.auth.services.providers import (
    begin_provider_link,
    begin_provider_login,
    confirm_provider_link,
    link_provider,
    list_provider_links,
    list_providers,
    log_in_by_provider,
    unlink_provider,
)
from src.auth.services.proving import RECENT_SECONDS
from src.auth.services.recovery import change_password, forget_password, reset_password, send_reset
from src.auth.services.refreshing import refresh
from src.auth.services.registration import (
    NewAccount,
    create_user,
    invite_again,
    open_account,
    prepare_account,
    register,
)
from src.auth.services.sessions import (
    end_session,
    end_sessions_of,
    list_sessions,
    log_out,
    log_out_everywhere,
)

__all__ = [
    "RECENT_SECONDS",
    "Account",
    "Device",
    "NewAccount",
    "add_passkey",
    "begin_passkey",
    "begin_passkey_login",
    "begin_passkey_step_up",
    "begin_provider_link",
    "begin_provider_login",
    "begin_totp",
    "change_password",
    "confirm_email_change",
    "confirm_provider_link",
    "confirm_totp",
    "create_api_key",
    "create_user",
    "deactivate_own",
    "delete_own",
    "delete_user",
    "end_session",
    "end_sessions_of",
    "find_account",
    "finish_login",
    "forget_password",
    "get_grants",
    "get_key_set",
    "get_security",
    "invite_again",
    "link_provider",
    "list_api_keys",
    "list_passkeys",
    "list_provider_links",
    "list_providers",
    "list_sessions",
    "log_in",
    "log_in_by_passkey",
    "log_in_by_provider",
    "log_out",
    "log_out_everywhere",
    "note_use",
    "offer_new_address",
    "open_account",
    "prepare_account",
    "refresh",
    "register",
    "remove_passkey",
    "remove_totp",
    "rename_passkey",
    "renew_recovery_codes",
    "request_email_change",
    "request_verification",
    "require_second_factor",
    "reset_password",
    "reset_second_factors",
    "revoke_api_key",
    "revoke_api_keys_of",
    "rotate_keys",
    "send_reset",
    "send_verification",
    "step_up",
    "step_up_by_passkey",
    "unlink_provider",
    "update_user",
    "verify_email",
]
