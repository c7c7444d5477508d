from django.contrib.auth.management import create_permissions
from django.db import migrations, models

VIEWER = "Queues: viewer"
OPERATOR = "Queues: operator"
LEAD = "Queues: lead"
#: What an operator may do beside looking; a lead may do everything.
OPERATES = (
    "annotate_deadletter",
    "annotate_failuregroup",
    "assign_deadletter",
    "cancel_job",
    "pause_queue",
    "requeue_deadletter",
    "reschedule_job",
    "retry_job",
    "run_recovery",
    "run_schedule",
    "triage_failuregroup",
)


def make_groups(apps, schema_editor):
    """Make three groups of staff, unless the site has groups of these names."""
    app = apps.get_app_config("queueadmin")
    # Permissions are otherwise made after all migrations.
    app.models_module = True
    create_permissions(app, apps=apps, verbosity=0, using=schema_editor.connection.alias)
    app.models_module = None
    permissions = apps.get_model("auth", "Permission").objects.filter(
        content_type__app_label="queueadmin"
    )
    looks = models.Q(codename__startswith="view_")
    groups = apps.get_model("auth", "Group").objects
    for name, allowed in (
        (VIEWER, permissions.filter(looks)),
        (OPERATOR, permissions.filter(looks | models.Q(codename__in=OPERATES))),
        (LEAD, permissions),
    ):
        group, is_new = groups.get_or_create(name=name)
        if is_new:
            group.permissions.set(allowed)


def remove_groups(apps, schema_editor):
    """Remove them."""
    groups = apps.get_model("auth", "Group").objects
    groups.filter(name__in=(VIEWER, OPERATOR, LEAD)).delete()


def group_what_is_there(apps, schema_editor):
    """Make the groups of dead letters that are older than groups."""
    dead_letters = apps.get_model("queueadmin", "DeadLetter").objects.exclude(fingerprint="")
    groups = apps.get_model("queueadmin", "FailureGroup").objects
    found = dead_letters.order_by().values("fingerprint").annotate(
        first=models.Min("died_at"), last=models.Max("died_at"), deaths=models.Sum("deaths")
    )
    for row in found.iterator():
        example = dead_letters.filter(
            fingerprint=row["fingerprint"], died_at=row["first"]
        ).only("queue", "actor", "error_class", "error_message").first()
        groups.create(
            fingerprint=row["fingerprint"],
            queue=example.queue,
            actor=example.actor,
            error_class=example.error_class,
            error_message=example.error_message[:2000],
            first_seen_at=row["first"],
            last_seen_at=row["last"],
            deaths=row["deaths"],
        )


class Migration(migrations.Migration):

    dependencies = [
        ("queueadmin", "0007_console"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        migrations.RunPython(make_groups, remove_groups, elidable=True),
        migrations.RunPython(group_what_is_there, migrations.RunPython.noop, elidable=True),
    ]
