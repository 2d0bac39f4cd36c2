"""What can be done with credentials and sessions, by business verb."""

from src.auth.services.addresses import (
    confirm_email_change,
    offer_new_address,
    request_email_change,
    request_verification,
    send_verification,
    verify_email,
)
from src.auth.services.closing import deactivate_own, delete_own, delete_user, update_user
from src.auth.services.devices import Device
from src.auth.services.keys import get_key_set, rotate_keys
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
    find_account,
    list_sessions,
    log_in,
    log_out,
    log_out_everywhere,
)

__all__ = [
    "Device",
    "NewAccount",
    "change_password",
    "confirm_email_change",
    "create_user",
    "deactivate_own",
    "delete_own",
    "delete_user",
    "end_session",
    "end_sessions_of",
    "find_account",
    "forget_password",
    "get_key_set",
    "invite_again",
    "list_sessions",
    "log_in",
    "log_out",
    "log_out_everywhere",
    "offer_new_address",
    "open_account",
    "prepare_account",
    "refresh",
    "register",
    "request_email_change",
    "request_verification",
    "reset_password",
    "rotate_keys",
    "send_reset",
    "send_verification",
    "update_user",
    "verify_email",
]
