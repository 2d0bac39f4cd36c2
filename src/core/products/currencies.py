"""ISO 4217: the codes of money that is in use, and how many digits of each are minor units."""

from typing import Final

_BY_EXPONENT: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC "
        "CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR "
        "JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD "
        "NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN "
        "SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
}
ISO_4217: Final = {code: exponent for exponent, codes in _BY_EXPONENT.items() for code in codes.split()}
"""Code → exponent: 100 minor units of EUR are one euro, a yen has none, a dinar of Kuwait has 1,000."""


def format_minor(amount_minor: int, currency: str) -> str:
    """As people read it, "34.90 EUR"; without regard to where they live."""
    exponent = ISO_4217[currency]
    if not exponent:
        return f"{amount_minor} {currency}"
    whole, rest = divmod(abs(amount_minor), 10**exponent)
    return f"{'-' if amount_minor < 0 else ''}{whole}.{rest:0{exponent}} {currency}"
