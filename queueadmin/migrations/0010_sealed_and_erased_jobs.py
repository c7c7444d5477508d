from django.contrib.auth.management import create_permissions
from django.db import migrations, models

LEAD = "Queues: lead"


def permit_leads(apps, schema_editor):
    """Let leads do what is new, as they may do everything."""
    app = apps.get_app_config("queueadmin")
    # Permissions are otherwise made after all migrations.
    app.models_module = True
    create_permissions(app, apps=apps, verbosity=0, using=schema_editor.connection.alias)
    app.models_module = None
    permissions = apps.get_model("auth", "Permission").objects.filter(
        content_type__app_label="queueadmin", codename__in=("erase_payload", "clean_job")
    )
    for group in apps.get_model("auth", "Group").objects.filter(name=LEAD):
        group.permissions.add(*permissions)


class Migration(migrations.Migration):

    dependencies = [
        ("queueadmin", "0009_groups_and_progress"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="job",
            options={"default_permissions": ("view",), "permissions": [("cancel_job", "Can cancel jobs"), ("retry_job", "Can run jobs now"), ("reschedule_job", "Can reschedule jobs"), ("reveal_payload", "Can see masked payload fields"), ("erase_payload", "Can erase personal data from payloads"), ("clean_job", "Can remove finished jobs")], "verbose_name": "job", "verbose_name_plural": "jobs"},
        ),
        migrations.AddField(
            model_name="job",
            name="erased_at",
            field=models.DateTimeField(blank=True, null=True, verbose_name="erased"),
        ),
        migrations.AddField(
            model_name="job",
            name="is_sealed",
            field=models.BooleanField(db_default=False, default=False, verbose_name="encrypted"),
        ),
        migrations.RunPython(permit_leads, migrations.RunPython.noop, elidable=True),
    ]
