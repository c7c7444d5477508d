from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("queueadmin", "0020_recovery_durations"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="parked_at",
            field=models.DateTimeField(blank=True, null=True, verbose_name="parked"),
        ),
    ]
