"""All settings of the site; what differs between machines comes from the environment."""

from pathlib import Path
from urllib.parse import quote

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from config import embedded, machine
from config.queues import QUEUES
from config.schedules import SCHEDULES

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

#: Where the stack of `make run` keeps its database, broker files, logs and secrets.
DATA_DIR = Path(env.str("DATA_DIR", default=str(BASE_DIR / "var")))
#: Of the site; in a second terminal the one that `make run` took last.
PORT = env.int("PORT", default=machine.last_port(DATA_DIR))

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="")
if not SECRET_KEY:
    _secret_file = DATA_DIR / "secret_key"
    if _secret_file.exists():
        SECRET_KEY = _secret_file.read_text().strip()
    elif DEBUG:
        SECRET_KEY = "only-for-development-and-tests-" + "0" * 32
    else:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set. Set it in the environment, or start the site with "
            "`make run`, which makes one for this machine."
        )
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
#: False only for plain HTTP on the own machine, as `make run` sets it.
HTTPS = env.bool("HTTPS", default=True)

INSTALLED_APPS = [
    "config.apps.ConfigConfig",
    "queueadmin",  # before django_dramatiq: its `rundramatiq` extends and replaces theirs
    "django_dramatiq",
    "django_apscheduler",
    "orders",
    "notifications",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "csp",
    "rest_framework",
    "rest_framework.authtoken",
    "drf_spectacular_sidecar",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "config.uploads.refuse_large_uploads",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
ASGI_APPLICATION = "config.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- Database ------------------------------------------------------------------------
DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{DATA_DIR / 'db.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        # Writers queue up at BEGIN instead of failing half-way with "database is locked".
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        # FULL: a committed job survives a power cut; group commit pays for the sync.
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
else:
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    DATABASES["default"]["CONN_MAX_AGE"] = env.int("CONN_MAX_AGE", default=60)
    DATABASES["default"]["OPTIONS"] = {
        # Left to Linux, a server whose host or line is gone is noticed after 15 minutes by who
        # sends to it, after two hours by who awaits its answer. Here after 5 and 15 seconds;
        # milliseconds are what the last one is in.
        "connect_timeout": 5,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        # What the query of DATABASE_URL says.
        **DATABASES["default"].get("OPTIONS", {}),
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Queues --------------------------------------------------------------------------


def _redis_url() -> str:
    """Return REDIS_URL, or build it from the REDIS_HOST family of variables."""
    if url := env.str("REDIS_URL", default=""):
        return str(url)
    host = env.str("REDIS_HOST", default="")
    if not host:
        # The embedded server of `make run` listens on this socket.
        return f"unix://{embedded.socket_path(DATA_DIR)}"
    password = env.str("REDIS_PASSWORD", default="")
    auth = f":{quote(password, safe='')}@" if password else ""
    port = env.int("REDIS_PORT", default=6379)
    return f"redis://{auth}{host}:{port}/{env.int('REDIS_DB', default=0)}"


REDIS_URL = _redis_url()
RABBITMQ_URL = env.str("RABBITMQ_URL", default="")
QUEUE_PROVIDER = env.str("QUEUE_PROVIDER", default="redis")
if QUEUE_PROVIDER == "redis":
    DRAMATIQ_BROKER = {
        "BROKER": "queueadmin.brokers.RedisBroker",
        "OPTIONS": {"url": REDIS_URL, "namespace": env.str("REDIS_NAMESPACE", default="dramatiq")},
    }
elif QUEUE_PROVIDER == "rabbitmq":
    if not RABBITMQ_URL:
        raise ImproperlyConfigured(
            "QUEUE_PROVIDER is rabbitmq, and RABBITMQ_URL is not set. Set it in the environment, "
            "for instance amqp://user:password@host:5672/vhost."
        )
    DRAMATIQ_BROKER = {
        "BROKER": "queueadmin.brokers.RabbitMQBroker",
        "OPTIONS": {
            "url": RABBITMQ_URL,
            "namespace": env.str("RABBITMQ_NAMESPACE", default="queueadmin"),
        },
    }
else:
    raise ImproperlyConfigured(
        f"QUEUE_PROVIDER is {QUEUE_PROVIDER!r}; it must be redis (also for Valkey) or rabbitmq."
    )
DRAMATIQ_AUTODISCOVER_MODULES = ["actors"]
QUEUEADMIN = {
    "QUEUES": QUEUES,
    "SCHEDULES": SCHEDULES,
    "RESOLVER": "config.queueadmin.Resolver",
    "RELEASE": env.str("RELEASE", default=""),
    "METRICS_TOKEN": env.str("METRICS_TOKEN", default=""),
    "METRICS_ADDRESSES": env.list("METRICS_ADDRESSES", default=[]),
    "ALERT_EMAILS": env.list("ALERT_EMAILS", default=[]),
    "ALERT_WEBHOOKS": env.list("ALERT_WEBHOOKS", default=[]),
    "ALERT_WEBHOOK_SECRET": env.str("ALERT_WEBHOOK_SECRET", default=""),
    "ALERT_WEBHOOK_NETWORKS": env.list("ALERT_WEBHOOK_NETWORKS", default=[]),
}

# --- The business ---------------------------------------------------------------------
#: Where people reach the site; links in messages begin with it.
SITE_URL = env.str("SITE_URL", default=f"http://{machine.HOST}:{PORT}")
#: How long a vendor may stay silent before the next one is asked.
VENDOR_ANSWER_MINUTES = env.float("VENDOR_ANSWER_MINUTES", default=30)
#: How long an order waits for a confirmation after its last request.
ORDER_EXPIRY_MINUTES = env.float("ORDER_EXPIRY_MINUTES", default=30)

# --- Notifications: the sandbox answers where no credentials are given --------------------
_ports = machine.Ports(PORT)
SANDBOX_URL = env.str("SANDBOX_URL", default=f"http://{machine.HOST}:{_ports.sandbox}")
SANDBOX_SMTP_PORT = env.int("SANDBOX_SMTP_PORT", default=_ports.smtp)
WHATSAPP_API_URL = env.str("WHATSAPP_API_URL", default="")
WHATSAPP_PHONE_NUMBER_ID = env.str("WHATSAPP_PHONE_NUMBER_ID", default="")
WHATSAPP_TOKEN = env.str("WHATSAPP_TOKEN", default="")
SENDGRID_API_URL = env.str("SENDGRID_API_URL", default="")
SENDGRID_API_KEY = env.str("SENDGRID_API_KEY", default="")
SMS_API_URL = env.str("SMS_API_URL", default="")
SMS_API_KEY = env.str("SMS_API_KEY", default="")
#: What proves that a webhook's caller is the provider; without it none is believed.
WHATSAPP_APP_SECRET = env.str("WHATSAPP_APP_SECRET", default="")
WHATSAPP_VERIFY_TOKEN = env.str("WHATSAPP_VERIFY_TOKEN", default="")
SENDGRID_WEBHOOK_KEY = env.str("SENDGRID_WEBHOOK_KEY", default="")
SMS_WEBHOOK_SECRET = env.str("SMS_WEBHOOK_SECRET", default="")
#: What recipients see as the sender of an SMS.
SMS_SENDER = env.str("SMS_SENDER", default="Orders")
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="orders@example.com")
vars().update(env.email("SMTP_URL", default=f"smtp://127.0.0.1:{SANDBOX_SMTP_PORT}"))
EMAIL_TIMEOUT = 10

# --- People ---------------------------------------------------------------------------
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "orders:list"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# --- Language, time, files ------------------------------------------------------------
LANGUAGE_CODE = "en"
#: Messages go out in these; pages follow the browser.
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
#: Of the pages' chrome; each app keeps its own.
LOCALE_PATHS = [BASE_DIR / "config" / "locale"]
TIME_ZONE = env.str("TIME_ZONE", default="UTC")
USE_I18N = True
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
MEDIA_URL = "media/"
MEDIA_ROOT = DATA_DIR / "media"
# Plain files under DEBUG, so that tests and a first look need no `collectstatic`.
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}

# --- Security -------------------------------------------------------------------------
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
# Probes come from inside, by plain HTTP, and say nothing that needs hiding; so may Prometheus.
SECURE_REDIRECT_EXEMPT = [r"^health/", r"^metrics$"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS

# --- Logs -----------------------------------------------------------------------------
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "text": {"format": "{asctime} {levelname} {name} {message}", "style": "{"},
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "format": "{asctime}{levelname}{name}{message}",
            "style": "{",
        },
    },
    "handlers": {
        "console": {
            "class": "queueadmin.logs.BatchHandler",
            "formatter": env.str("LOG_FORMAT", default="text"),
        }
    },
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", default="INFO")},
}
